//! From checked documents to the policy's typed values, one to one.

use leastgate_policy::spec::{
    ApiLimits, ApiSpec, BoundarySpec, ConditionSpec, CorsSpec, DeclaredToken, Disclose, GrantSpec, Located, ModeSpec,
    Origin, PolicySpec, RestrictionSpec, RoleSpec, RuleSpec, ScopeSpec, Sensitivity, TokenRules, WhenSpec,
};
use leastgate_policy::{Timestamp, TokenLimits, TokenState};

use crate::diagnostic::Fault;
use crate::scalar;
use crate::shape::View;
use crate::source::Place;

type Read<T> = Result<T, Fault>;

/// The union of checked documents, with the places that its origins are indexes of.
pub(super) fn read(documents: &[View<'_>]) -> Read<(PolicySpec, Vec<Place>)> {
    let mut reader = Reader { places: vec![Place::whole(1)] };
    let mut spec = PolicySpec::default();
    for document in documents {
        reader.document(*document, &mut spec)?;
    }
    Ok((spec, reader.places))
}

struct Reader {
    places: Vec<Place>,
}

impl Reader {
    fn document(&mut self, view: View<'_>, spec: &mut PolicySpec) -> Read<()> {
        for name in self.texts(view.find("environments"))? {
            // Several files may repeat an environment: they merge as sets.
            if !spec.environments.iter().any(|known| known.value == name.value) {
                spec.environments.push(name);
            }
        }
        for (name, at, api) in entries(view.find("apis")) {
            spec.apis.push(self.api(name, at, api)?);
        }
        for (name, at, scope) in entries(view.find("scopes")) {
            spec.scopes.push(self.scope(name, at, scope)?);
        }
        for (name, at, role) in entries(view.find("roles")) {
            spec.roles.push(self.role(name, at, role)?);
        }
        for boundary in items(view.find("boundaries")) {
            spec.boundaries.push(self.boundary(boundary)?);
        }
        if let Some(rules) = view.find("token_rules") {
            spec.token_rules = token_rules(rules)?;
        }
        for token in items(view.find("tokens")) {
            spec.tokens.push(self.token(token)?);
        }
        Ok(())
    }

    fn api(&mut self, name: &str, at: Place, view: View<'_>) -> Read<ApiSpec> {
        Ok(ApiSpec {
            name: self.named(name, at),
            hosts: self.texts(view.find("hosts"))?,
            base: match view.get("base")? {
                // A default was written nowhere; what it leads to is the api's fault.
                base if base.at().source == 0 => self.named(base.text()?, at),
                base => self.text(base)?,
            },
            upstream: self.text(view.get("upstream")?)?,
            mode: match view.find("until") {
                Some(until) => ModeSpec::Shadow { until: self.moment(until)? },
                None => ModeSpec::Enforce,
            },
            public: self.texts(view.find("public"))?,
            disclose: match view.get("disclose")?.text()? {
                "full" => Disclose::Full,
                "none" => Disclose::None,
                "conceal" => Disclose::Conceal,
                _ => Disclose::Needed,
            },
            cors: match view.find("cors") {
                Some(cors) => Some(Located::new(read_cors(cors)?, self.origin(cors.at()))),
                None => None,
            },
            limits: view.find("limits").map_or(Ok(ApiLimits::default()), api_limits)?,
            redact: self.texts(view.find("redact"))?,
        })
    }

    fn scope(&mut self, name: &str, at: Place, view: View<'_>) -> Read<ScopeSpec> {
        let high = view.get("sensitivity")?.text()? == "high";
        Ok(ScopeSpec {
            name: self.named(name, at),
            api: self.text(view.get("api")?)?,
            allow: self.rules(view.find("allow"))?,
            deny: self.rules(view.find("deny"))?,
            sensitivity: if high { Sensitivity::High } else { Sensitivity::Normal },
            max_ttl: duration(view, "max_ttl")?,
        })
    }

    fn rules(&mut self, view: Option<View<'_>>) -> Read<Vec<RuleSpec>> {
        items(view).map(|rule| self.rule(rule)).collect()
    }

    fn rule(&mut self, view: View<'_>) -> Read<RuleSpec> {
        if !view.is_map() {
            return Ok(RuleSpec { text: self.text(view)?, when: None });
        }
        let when = view.find("when").map(|when| self.when(when)).transpose()?;
        Ok(RuleSpec { text: self.text(view.get("match")?)?, when })
    }

    fn when(&mut self, view: View<'_>) -> Read<WhenSpec> {
        Ok(WhenSpec {
            header: self.conditions(view.find("header"))?,
            query: self.conditions(view.find("query"))?,
            source_ip: self.texts(view.find("source_ip"))?,
        })
    }

    fn conditions(&mut self, view: Option<View<'_>>) -> Read<Vec<ConditionSpec>> {
        let condition = |(name, at, values)| Ok((self.named(name, at), self.texts(Some(values))?));
        entries(view).map(condition).collect()
    }

    fn role(&mut self, name: &str, at: Place, view: View<'_>) -> Read<RoleSpec> {
        Ok(RoleSpec {
            name: self.named(name, at),
            inherits: self.texts(view.find("inherits"))?,
            scopes: self.texts(view.find("scopes"))?,
            environments: self.optional_texts(view.find("environments"))?,
            max_ttl: duration(view, "max_ttl")?,
            owner: text(view, "owner")?,
        })
    }

    fn boundary(&mut self, view: View<'_>) -> Read<BoundarySpec> {
        Ok(BoundarySpec {
            origin: self.origin(view.at()),
            environments: self.optional_texts(view.find("environments"))?,
            apis: self.optional_texts(view.find("apis"))?,
            deny: self.rules(view.find("deny"))?,
        })
    }

    fn token(&mut self, view: View<'_>) -> Read<DeclaredToken> {
        Ok(DeclaredToken {
            accessor: self.text(view.get("accessor")?)?,
            name: self.text(view.get("name")?)?,
            owner: text(view, "owner")?,
            digest: self.text(view.get("digest")?)?,
            env: self.text(view.get("env")?)?,
            roles: self.texts(view.find("roles"))?,
            grants: items(view.find("grants")).map(|grant| self.grant(grant)).collect::<Read<_>>()?,
            restrictions: view
                .find("restrictions")
                .map_or(Ok(RestrictionSpec::default()), |view| self.restrictions(view))?,
            limits: view.find("limits").map(|limits| self.limits(limits)).transpose()?.unwrap_or_default(),
            created: self.moment(view.get("created")?)?,
            expires: view.find("expires").map(|expires| self.moment(expires)).transpose()?,
            state: match view.get("state")?.text()? {
                "rotating" => TokenState::Rotating,
                "disabled" => TokenState::Disabled,
                "revoked" => TokenState::Revoked,
                _ => TokenState::Active,
            },
        })
    }

    fn grant(&mut self, view: View<'_>) -> Read<Located<GrantSpec>> {
        let origin = self.origin(view.at());
        if !view.is_map() {
            return Ok(Located::new(GrantSpec { scope: view.text()?.to_owned(), expires: None, reason: None }, origin));
        }
        let grant = GrantSpec {
            scope: view.get("scope")?.text()?.to_owned(),
            expires: moment(view, "expires")?,
            reason: text(view, "reason")?,
        };
        Ok(Located::new(grant, origin))
    }

    fn restrictions(&mut self, view: View<'_>) -> Read<RestrictionSpec> {
        Ok(RestrictionSpec { source_ip: self.texts(view.find("source_ip"))?, not_before: moment(view, "not_before")? })
    }

    fn limits(&mut self, view: View<'_>) -> Read<Located<TokenLimits>> {
        let limit = |key| view.find(key).map(View::count).transpose();
        let limits = TokenLimits { rate: limit("rate")?, burst: limit("burst")?, concurrent: limit("concurrent")? };
        Ok(Located::new(limits, self.origin(view.at())))
    }

    fn text(&mut self, view: View<'_>) -> Read<Located<String>> {
        Ok(self.named(view.text()?, view.at()))
    }

    fn texts(&mut self, view: Option<View<'_>>) -> Read<Vec<Located<String>>> {
        items(view).map(|item| self.text(item)).collect()
    }

    fn optional_texts(&mut self, view: Option<View<'_>>) -> Read<Option<Vec<Located<String>>>> {
        view.map(|view| self.texts(Some(view))).transpose()
    }

    fn moment(&mut self, view: View<'_>) -> Read<Located<Timestamp>> {
        Ok(Located::new(view.parse(scalar::moment)?, self.origin(view.at())))
    }

    fn named(&mut self, text: &str, at: Place) -> Located<String> {
        Located::new(text.to_owned(), self.origin(at))
    }

    fn origin(&mut self, at: Place) -> Origin {
        self.places.push(at);
        Origin(u32::try_from(self.places.len() - 1).unwrap_or(0))
    }
}

fn entries<'a>(view: Option<View<'a>>) -> impl Iterator<Item = (&'a str, Place, View<'a>)> {
    view.into_iter().flat_map(View::entries)
}

fn items<'a>(view: Option<View<'a>>) -> impl Iterator<Item = View<'a>> {
    view.into_iter().flat_map(View::items)
}

fn text(view: View<'_>, key: &str) -> Read<Option<String>> {
    view.find(key).map(|text| text.text().map(str::to_owned)).transpose()
}

fn duration(view: View<'_>, key: &str) -> Read<Option<std::time::Duration>> {
    view.find(key).map(|duration| duration.parse(scalar::duration)).transpose()
}

fn moment(view: View<'_>, key: &str) -> Read<Option<Timestamp>> {
    view.find(key).map(|moment| moment.parse(scalar::moment)).transpose()
}

fn read_cors(view: View<'_>) -> Read<CorsSpec> {
    let texts = |key| items(view.find(key)).map(|text| text.text().map(str::to_owned)).collect::<Read<Vec<_>>>();
    Ok(CorsSpec {
        origins: texts("origins")?,
        headers: texts("headers")?,
        credentials: view.get("credentials")?.flag()?,
        max_age: duration(view, "max_age")?,
    })
}

fn api_limits(view: View<'_>) -> Read<ApiLimits> {
    Ok(ApiLimits {
        body: view.find("body").map(|body| body.parse(scalar::size_or_none)).transpose()?,
        response_timeout: duration(view, "response_timeout")?,
    })
}

fn token_rules(view: View<'_>) -> Read<TokenRules> {
    Ok(TokenRules {
        require_expiry: view.get("require_expiry")?.flag()?,
        max_ttl: duration(view, "max_ttl")?,
        require_owner: view.get("require_owner")?.flag()?,
        idle_disable: duration(view, "idle_disable")?,
        rotation_every: view.find("rotation").map(|rotation| duration(rotation, "every")).transpose()?.flatten(),
    })
}
