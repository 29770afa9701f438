//! The crate's tests from outside, in one binary: files in, values or rendered errors out.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod arbitrary;
mod bombs;
mod broken;
mod gateway;
mod policy;
mod reference;
mod schema;
mod secrets;

use std::path::PathBuf;

use leastgate_config::{Diagnostics, GatewayInputs, LoadedGateway, load_gateway};

/// The smallest gateway file.
const SMALLEST: &str = "\
environment: prod
upstreams: { orders: { endpoints: [ \"http://127.0.0.1:8081\" ] } }
pepper: { current: { env: PEPPER } }
tokens: { source: declared }
policy: { files: [ policy.yaml ] }
";

/// A folder with `text` as its leastgate.yaml.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("leastgate.yaml"), text).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("leastgate.yaml")
    }

    fn inputs(&self) -> GatewayInputs {
        GatewayInputs { file: Some(self.file()), ..GatewayInputs::default() }
    }

    /// What `text` without the folder's name would be.
    fn anonymous(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn gateway(text: &str) -> Result<LoadedGateway, Diagnostics> {
    load_gateway(&Folder::with(text).inputs())
}

/// The errors of a gateway file, as `config validate` prints them.
fn gateway_errors(text: &str) -> String {
    let folder = Folder::with(text);
    let errors = load_gateway(&folder.inputs()).expect_err("the file is accepted");
    folder.anonymous(&errors.to_string())
}

/// The path of a file of the repository's `config` folder.
fn shipped(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config")).join(name)
}
