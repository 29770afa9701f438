//! Administrators: found by the digest of their credential, and revoked for good.

use leastgate_store::{AdminRole, MayGrant, NameSet, NewAdmin, StoreError, TokenName, TokenStore, issue_admin};

use crate::fixture::{ENV, Home, NOW, key};

fn operator(name: &str) -> NewAdmin {
    let environments = NameSet::Only(vec![ENV.into()]);
    NewAdmin {
        name: TokenName::parse(name).unwrap(),
        role: AdminRole::Operator,
        may_grant: MayGrant { environments, max_ttl: Some(3600), ..MayGrant::everything() },
        created: NOW,
        created_by: "bootstrap".into(),
    }
}

#[test]
fn an_administrator_survives_and_is_found_by_its_credential() {
    let home = Home::new();
    let issued = {
        let store = home.open();
        assert_eq!(store.count_admins(), Ok(0));
        issue_admin(&store, ENV, &key(), &operator("ann")).unwrap()
    };
    assert!(issued.secret.expose().starts_with("lga_prod_"));
    let store = home.open();
    let digest = key().digest(issued.secret.expose().as_bytes());
    assert_eq!(store.find_admin(&digest), Ok(Some(issued.record)));
    assert_eq!(store.find_admin(&key().digest(b"lga_guess")), Ok(None));
    assert_eq!(store.count_admins(), Ok(1));
}

#[test]
fn revoking_keeps_the_record_and_frees_the_name() {
    let home = Home::new();
    let store = home.open();
    let first = issue_admin(&store, ENV, &key(), &operator("ann")).unwrap().record;
    let again = issue_admin(&store, ENV, &key(), &operator("ann"));
    assert_eq!(again.unwrap_err(), StoreError::NameTaken { name: "ann".into(), holder: first.id.to_string() });

    let revoked = store.revoke_admin(first.id, NOW.plus(1)).unwrap();
    assert_eq!(revoked.revoked, Some(NOW.plus(1)));
    assert_eq!(store.revoke_admin(first.id, NOW.plus(9)), Ok(revoked.clone()), "the first time stays");
    assert_eq!(store.find_admin(&first.digest), Ok(Some(revoked.clone())));
    assert_eq!(store.count_admins(), Ok(0));

    let second = issue_admin(&store, ENV, &key(), &operator("ann")).unwrap().record;
    assert_eq!(store.list_admins(), Ok(sorted(vec![revoked, second])));
    assert_eq!(store.count_admins(), Ok(1));
    let nobody = leastgate_store::draw::draw_accessor().unwrap();
    assert!(matches!(store.revoke_admin(nobody, NOW), Err(StoreError::NotFound { kind: "admin", .. })));
}

/// Both have one name and one time; then the id decides.
fn sorted(mut admins: Vec<leastgate_store::AdminRecord>) -> Vec<leastgate_store::AdminRecord> {
    admins.sort_by_key(|admin| admin.id.to_string());
    admins
}
