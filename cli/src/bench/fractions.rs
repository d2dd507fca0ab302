//! Figures as fractions of what the machine itself can do; `docs/PERFORMANCE.md` explains each.

use serde::Serialize;
use tradewind_topology::FabricKind;

use super::limits::Limits;
use super::load::Row;

/// What an operation cannot do without, whoever implements it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// A round trip between the client and its server, over TCP.
    pub(crate) client: bool,
    /// A round trip between two members, over this fabric.
    pub(crate) members: Option<FabricKind>,
    /// An append that is synced before the answer.
    pub(crate) sync: bool,
    /// Bytes that come with an operation, and into how many other memories than the first they must be copied.
    pub(crate) bytes: usize,
    pub(crate) copies: usize,
    /// Onto how many disks.
    pub(crate) disks: usize,
}

/// A line of a report against the limits of the same run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Fractions {
    /// The sum of the limits' medians that an operation needs one after the other, as a part of its own median latency.
    pub(crate) latency: Option<f64>,
    /// Operations for each append + `fdatasync` that one file takes in the time: above 1 they share syncs.
    pub(crate) operations_per_sync: Option<f64>,
    /// Bytes between clients and servers, as a part of what one loopback TCP connection carries.
    pub(crate) tcp_stream: Option<f64>,
    /// Bytes that must be copied into other members' memory, as a part of what all cores can copy.
    pub(crate) memory_copy: Option<f64>,
    /// Bytes that must be on the members' disks, here one disk for all, as a part of what one file takes.
    pub(crate) disk_stream: Option<f64>,
}

impl Needs {
    /// The least that an operation takes, in microseconds; `None` if a limit of it was not measured.
    fn latency_us(&self, limits: &Limits) -> Option<f64> {
        let members = match self.members {
            None => 0.0,
            Some(FabricKind::Tcp) => limits.tcp_round_trip_p50_us,
            // Software cannot tell what a network card takes.
            Some(FabricKind::Verbs) => return None,
            Some(_) => limits.memory_round_trip_us?,
        };
        let client = if self.client { limits.tcp_round_trip_p50_us } else { 0.0 };
        Some(client + members + if self.sync { limits.fdatasync_p50_us } else { 0.0 })
    }

    /// What was measured, as fractions.
    pub(crate) fn of(
        &self,
        limits: &Limits,
        cores: usize,
        per_second: f64,
        latency_p50_us: f64,
    ) -> Fractions {
        let bytes = per_second * self.bytes as f64;
        let copying = limits.memory_copy_bytes_per_second * cores as f64;
        Fractions {
            latency: self.latency_us(limits).map(|least| least / latency_p50_us),
            operations_per_sync: self.sync.then(|| per_second / limits.fdatasync_per_second),
            tcp_stream: self.client.then(|| bytes / limits.tcp_stream_bytes_per_second),
            memory_copy: (self.copies > 0).then(|| bytes * self.copies as f64 / copying),
            disk_stream: (self.disks > 0)
                .then(|| bytes * self.disks as f64 / limits.disk_stream_bytes_per_second),
        }
    }
}

/// A measured line with its fractions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) of_limits: Fractions,
}

impl Line {
    pub(crate) fn new(row: Row, needs: &Needs, limits: &Limits, cores: usize) -> Self {
        let of_limits = needs.of(limits, cores, row.per_second, row.latency_us.p50 as f64);
        Self { row, of_limits }
    }
}

/// A fraction for people.
pub(crate) fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".into(), |fraction| format!("{:.1} %", fraction * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        fdatasync_per_second: 10_000.0,
        fdatasync_p50_us: 90.0,
        disk_stream_bytes_per_second: 1e9,
        tcp_round_trip_p50_us: 10.0,
        tcp_stream_bytes_per_second: 8e9,
        memory_round_trip_us: Some(0.5),
        memory_copy_bytes_per_second: 10e9,
    };

    #[test]
    fn a_figure_is_set_against_what_an_operation_needs() {
        let needs = Needs {
            client: true,
            members: Some(FabricKind::Tcp),
            sync: true,
            bytes: 1_000,
            copies: 2,
            disks: 3,
        };
        let put = needs.of(&LIMITS, 2, 100_000.0, 220.0);
        assert_eq!(put.latency, Some((10.0 + 10.0 + 90.0) / 220.0));
        assert_eq!(put.operations_per_sync, Some(10.0));
        assert_eq!(put.tcp_stream, Some(1e8 / 8e9));
        assert_eq!(put.memory_copy, Some(2e8 / 20e9));
        assert_eq!(put.disk_stream, Some(3e8 / 1e9));
        let shm =
            Needs { client: false, members: Some(FabricKind::Shm), sync: false, disks: 0, ..needs };
        let multicast = shm.of(&LIMITS, 2, 100_000.0, 5.0);
        assert_eq!(multicast.latency, Some(0.1));
        assert_eq!((multicast.operations_per_sync, multicast.tcp_stream), (None, None));
        assert_eq!(multicast.disk_stream, None);
        let read = Needs { members: None, sync: false, copies: 0, ..needs };
        assert_eq!(read.of(&LIMITS, 2, 1.0, 20.0).latency, Some(0.5));
        assert_eq!(read.of(&LIMITS, 2, 1.0, 20.0).memory_copy, None);
        let verbs = Needs { members: Some(FabricKind::Verbs), ..shm };
        assert_eq!(verbs.of(&LIMITS, 2, 1.0, 20.0).latency, None);
    }
}
