//! Pictures of `testdata/good/atlas.toml`, golden: `BLESS=1` draws them anew.

use std::{fs, path::Path};

use tradewind_topology::{Topology, render};

type Draw = fn(&Topology) -> String;

#[test]
fn pictures_are_as_golden() {
    let file = Path::new("testdata/good/atlas.toml");
    let topology = Topology::load_with(file, &[]).unwrap().topology;
    let pictures: [(&str, Draw); 3] =
        [("tree", render::text), ("dot", render::dot), ("svg", render::svg)];
    for (extension, draw) in pictures {
        let golden = file.with_extension(extension);
        let picture = draw(&topology);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &picture).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(expected, picture, "{}", golden.display());
    }
}
