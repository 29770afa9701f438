//! Which methods a rule speaks of, and which methods a request may have at all (§4).

use http::Method;

/// The methods of a rule: any, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// `*`
    Any,
    /// Names as written; `GET` covers `HEAD`.
    Listed(Box<[Method]>),
}

impl Methods {
    /// Whether a request with this method is meant.
    #[must_use]
    pub fn matches(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => {
                listed.iter().any(|own| own == method || (*own == Method::GET && *method == Method::HEAD))
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

/// The method of that name, if a rule may name it.
pub(crate) fn supported(name: &str) -> Option<Method> {
    name.parse().ok().filter(|_| is_supported(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_covers_head_and_nothing_else() {
        let get = Methods::Listed(Box::new([Method::GET]));
        assert!(get.matches(&Method::GET));
        assert!(get.matches(&Method::HEAD));
        assert!(!get.matches(&Method::POST));
        let head = Methods::Listed(Box::new([Method::HEAD]));
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
