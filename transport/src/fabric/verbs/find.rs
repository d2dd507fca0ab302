//! Which RDMA device is on an address, and if none, why.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Where the kernel lists its RDMA devices.
const DEVICES: &str = "/sys/class/infiniband";

/// The way to RDMA on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// The device's name, as `rdma link` shows it.
    pub name: String,
    /// Its port.
    pub port: u8,
    /// The index of the address among the port's GIDs, of type RoCE v2.
    pub gid_index: u8,
    /// The address as a GID.
    pub gid: [u8; 16],
}

/// Why there is no RDMA on an address.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// No driver has made a device.
    #[error(
        "this machine has no RDMA device: load the network card's RDMA driver, or make a software \
         device with `rdma link add rxe0 type rxe netdev DEV`"
    )]
    NoDevice,
    /// The devices are on other addresses.
    #[error(
        "no RDMA device has {address} as a RoCE v2 address (devices: {devices}): give the address to \
         the network interface of a device, as `rdma link` shows them"
    )]
    NoGid {
        /// The address that was looked for.
        address: IpAddr,
        /// The devices that there are.
        devices: String,
    },
    /// The device has the address as RoCE v1 only, which does not cross routers and is not spoken here.
    #[error(
        "{device} has {address} as a RoCE v1 address only: set the port to RoCE v2, for example with \
         `cma_roce_mode` or the card's own tool"
    )]
    OnlyV1 {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// The cable is out, or the interface down.
    #[error("port {port} of {device} is {state}: bring its network interface up")]
    PortDown {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// What the kernel says of it.
        state: String,
    },
    /// The kernel's list cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Unreadable {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The RDMA device that has `address` as a RoCE v2 address.
///
/// # Errors
/// [`Why`], with the remedy.
pub fn device_for(address: IpAddr) -> Result<DeviceName, Why> {
    device_in(Path::new(DEVICES), address)
}

fn device_in(root: &Path, address: IpAddr) -> Result<DeviceName, Why> {
    let gid = gid_of(address);
    let written = written(&gid);
    let devices = names(root)?;
    if devices.is_empty() {
        return Err(Why::NoDevice);
    }
    let mut only_v1 = None;
    for device in &devices {
        let ports = root.join(device).join("ports");
        for port in names(&ports)? {
            let Ok(number) = port.parse::<u8>() else { continue };
            let port = ports.join(port);
            for gid_index in 0..=u8::MAX {
                let Ok(found) = fs::read_to_string(port.join(format!("gids/{gid_index}"))) else {
                    break;
                };
                if found.trim() != written {
                    continue;
                }
                let kind = fs::read_to_string(port.join(format!("gid_attrs/types/{gid_index}")));
                if !kind.is_ok_and(|kind| kind.contains("v2")) {
                    only_v1 = Some(Why::OnlyV1 { device: device.clone(), address });
                    continue;
                }
                let state = fs::read_to_string(port.join("state")).unwrap_or_default();
                if !state.contains("ACTIVE") {
                    let state = state.trim().to_owned();
                    return Err(Why::PortDown { device: device.clone(), port: number, state });
                }
                return Ok(DeviceName { name: device.clone(), port: number, gid_index, gid });
            }
        }
    }
    Err(only_v1.unwrap_or_else(|| Why::NoGid { address, devices: devices.join(", ") }))
}

/// The names in a folder, in order; none if there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>, Why> {
    let unreadable = |source| Why::Unreadable { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    names.sort();
    Ok(names)
}

fn gid_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

/// A GID as the kernel writes it.
fn written(gid: &[u8; 16]) -> String {
    let groups = gid.chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
    groups.collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "10.77.0.1";

    /// A tree like the kernel's: one device, its GIDs with their types.
    fn tree(state: &str, gids: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let port = root.path().join("rxe0/ports/1");
        fs::create_dir_all(port.join("gids")).unwrap();
        fs::create_dir_all(port.join("gid_attrs/types")).unwrap();
        fs::write(port.join("state"), state).unwrap();
        for (index, (gid, kind)) in gids.iter().enumerate() {
            fs::write(port.join(format!("gids/{index}")), format!("{gid}\n")).unwrap();
            fs::write(port.join(format!("gid_attrs/types/{index}")), format!("{kind}\n")).unwrap();
        }
        root
    }

    fn look(root: &tempfile::TempDir) -> Result<DeviceName, String> {
        device_in(root.path(), ADDRESS.parse().unwrap()).map_err(|why| why.to_string())
    }

    const LINK_LOCAL: (&str, &str) = ("fe80:0000:0000:0000:5054:00ff:fe12:3456", "RoCE v2");
    const OWN: &str = "0000:0000:0000:0000:0000:ffff:0a4d:0001";

    #[test]
    fn the_address_is_found_as_roce_v2() {
        let root = tree("4: ACTIVE\n", &[LINK_LOCAL, (OWN, "IB/RoCE v1"), (OWN, "RoCE v2")]);
        let found = look(&root).unwrap();
        assert_eq!((found.name.as_str(), found.port, found.gid_index), ("rxe0", 1, 2));
        assert_eq!(found.gid[10..], [0xff, 0xff, 10, 77, 0, 1]);
    }

    #[test]
    fn what_is_missing_is_said_with_the_remedy() {
        let none = tempfile::tempdir().unwrap();
        assert!(look(&none).unwrap_err().contains("rdma link add rxe0 type rxe"));
        let elsewhere = look(&tree("4: ACTIVE", &[LINK_LOCAL])).unwrap_err();
        assert!(
            elsewhere.contains("10.77.0.1 as a RoCE v2 address (devices: rxe0)"),
            "{elsewhere}"
        );
        let old = look(&tree("4: ACTIVE", &[(OWN, "IB/RoCE v1")])).unwrap_err();
        assert!(old.contains("RoCE v1 address only"), "{old}");
        let down = look(&tree("1: DOWN", &[(OWN, "RoCE v2")])).unwrap_err();
        assert!(
            down.contains("port 1 of rxe0 is 1: DOWN: bring its network interface up"),
            "{down}"
        );
    }
}
