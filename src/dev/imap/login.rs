//! Who a client is, and what it is told that it may use.

use zeroize::Zeroizing;

use super::session::{Answer, Context, Session};

impl Session {
    /// SASL PLAIN (RFC 4616): authorization identity, authentication identity, password.
    pub(super) fn plain(&mut self, context: &mut Context<'_>, response: Option<Vec<u8>>) -> Answer {
        let response = Zeroizing::new(response.unwrap_or_default());
        let mut parts = response.split(|b| *b == 0);
        let (Some(authzid), Some(authcid), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Answer::bad("That is not a PLAIN response");
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.log_in(context, &text(authzid), &text(authcid), password)
    }

    pub(super) fn log_in(&mut self, context: &Context<'_>, authzid: &str, login: &str, password: &[u8]) -> Answer {
        if context.model.faults.refuse_logins {
            return Answer::no("Nobody can log in at the moment").code("UNAVAILABLE");
        }
        let is_master = login == self.traits.master.user && password == self.traits.master.password.as_bytes();
        let user = if is_master && !authzid.is_empty() {
            context.model.user(authzid)
        } else {
            let user = context.model.user(login);
            let user = user.filter(|user| user.as_str().split('@').next().map(str::as_bytes) == Some(password));
            user.filter(|user| authzid.is_empty() || context.model.user(authzid).as_ref() == Some(user))
        };
        self.user = user;
        match self.user {
            Some(_) => Answer::ok("Logged in").code(format!("CAPABILITY {}", self.capabilities())),
            None => Answer::no("The name or the password is wrong").code("AUTHENTICATIONFAILED"),
        }
    }

    pub(super) fn capabilities(&self) -> String {
        let mut names = vec!["IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "ENABLE"];
        if self.user.is_none() {
            names.push("AUTH=PLAIN");
        } else {
            names.extend(["NAMESPACE", "UIDPLUS", "UNSELECT", "CHILDREN", "MOVE", "SPECIAL-USE", "LIST-EXTENDED", "LIST-STATUS"]);
            names.extend(["STATUS=SIZE", "WITHIN", "ACL", "RIGHTS=kxte"]);
        }
        let optional = [(self.traits.idle, "IDLE"), (self.traits.esearch, "ESEARCH")];
        names.extend(optional.into_iter().filter_map(|(there, name)| there.then_some(name)));
        if self.traits.condstore {
            names.extend(["CONDSTORE", "QRESYNC"]);
        }
        names.join(" ")
    }
}
