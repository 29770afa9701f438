//! The table of reasons in the documents is the one in the code. `UPDATE_DOCUMENTS=1` writes it.

use std::fs;
use std::path::Path;

use leastgate_policy::Reason;

const BEGIN: &str = "<!-- reasons -->\n";
const END: &str = "<!-- /reasons -->";

#[test]
fn the_architecture_prints_the_table_of_reasons() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("ARCHITECTURE.md can be read");
    let (head, rest) = text.split_once(BEGIN).expect("ARCHITECTURE.md has the mark before the table");
    let (printed, tail) = rest.split_once(END).expect("ARCHITECTURE.md has the mark after the table");
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", Reason::table()))
            .expect("ARCHITECTURE.md can be written");
    } else {
        assert_eq!(printed, Reason::table(), "run UPDATE_DOCUMENTS=1 cargo test -p leastgate-policy documents");
    }
}
