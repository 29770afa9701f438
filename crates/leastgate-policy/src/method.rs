//! Which methods a rule speaks of, and which methods a request may have at all (§4).

use http::Method;
use smol_str::SmolStr;

/// The methods of a rule: any, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// `*`
    Any,
    /// Names as written; `GET` covers `HEAD`.
    Listed(Box<[SmolStr]>),
}

impl Methods {
    /// Whether a request with this method is meant.
    #[must_use]
    pub fn matches(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(names) => {
                let name = method.as_str();
                names.iter().any(|listed| listed == name || (name == "HEAD" && listed == "GET"))
            }
        }
    }
}

/// Whether a request or a rule may use this method: `A-Z 0-9 -`, not CONNECT or TRACE.
#[must_use]
pub fn is_supported(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(plain) && name != "CONNECT" && name != "TRACE"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_covers_head_and_nothing_else() {
        let get = Methods::Listed(Box::new(["GET".into()]));
        assert!(get.matches(&Method::GET));
        assert!(get.matches(&Method::HEAD));
        assert!(!get.matches(&Method::POST));
        let head = Methods::Listed(Box::new(["HEAD".into()]));
        assert!(!head.matches(&Method::GET));
    }

    #[test]
    fn odd_methods_are_not_supported() {
        for name in ["", "get", "GET\u{e9}", "CONNECT", "TRACE", "G_T", "GET!"] {
            assert!(!is_supported(name), "{name}");
        }
        for name in ["GET", "PROPFIND", "M-SEARCH", "X2"] {
            assert!(is_supported(name), "{name}");
        }
    }
}
