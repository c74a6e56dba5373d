//! The commands of RFC 4314.

use super::grammar::{Reader, shown_name, string};
use super::session::{Answer, Context, Session};
use crate::dev::store::model::Refusal;
use crate::mail::UserName;
use crate::mail::rights::{Identifier, Rights, RightsChange};

impl Session {
    /// `None` if the arguments are broken.
    pub(super) fn acl(&mut self, context: &mut Context<'_>, user: &UserName, verb: &str, reader: Reader<'_>) -> Option<Answer> {
        let mut reader = reader;
        let name = reader.name()?;
        let mut next = || {
            reader.space()?;
            String::from_utf8(reader.astring()?).ok()
        };
        let done = match verb {
            "MYRIGHTS" => {
                reader.end()?;
                self.my_rights(context, user, &name)
            }
            "GETACL" => {
                reader.end()?;
                self.get_acl(context, user, &name)
            }
            "LISTRIGHTS" => {
                let identifier = next()?;
                reader.end()?;
                self.list_rights(context, user, &name, &identifier)
            }
            "DELETEACL" => {
                let identifier = next()?;
                reader.end()?;
                context.model.set_acl(context.stamp, user, &name, &identifier, RightsChange::Set(Rights::NONE))
            }
            _ => {
                let (identifier, change) = (next()?, next()?);
                reader.end()?;
                let Ok(change) = change.parse() else { return Some(Answer::bad("That is not a right")) };
                context.model.set_acl(context.stamp, user, &name, &identifier, change)
            }
        };
        Some(done.map_or_else(Answer::from, |()| Answer::ok("Done")))
    }

    fn my_rights(&mut self, context: &Context<'_>, user: &UserName, name: &str) -> Result<(), Refusal> {
        let id = context.model.find(user, name, "")?;
        let rights = context.model.mailbox(id).map(|mailbox| mailbox.rights(user)).unwrap_or_default();
        if !rights.know() {
            return Err(Refusal::Nonexistent);
        }
        self.line(&format!("* MYRIGHTS {} {rights}", shown_name(name)));
        Ok(())
    }

    fn get_acl(&mut self, context: &Context<'_>, user: &UserName, name: &str) -> Result<(), Refusal> {
        let id = context.model.find(user, name, "a")?;
        let Some(mailbox) = context.model.mailbox(id) else { return Err(Refusal::Nonexistent) };
        let mut line = format!("* ACL {}", shown_name(name)).into_bytes();
        let owner = (mailbox.owner.to_string(), Rights::ALL);
        let others = mailbox.acl.iter().map(|(entry, rights)| (entry.to_string(), rights));
        for (identifier, rights) in std::iter::once(owner).chain(others) {
            line.push(b' ');
            string(&mut line, identifier.as_bytes());
            line.extend_from_slice(format!(" {rights}").as_bytes());
        }
        self.to_client.extend_from_slice(&line);
        self.line("");
        Ok(())
    }

    fn list_rights(&mut self, context: &Context<'_>, user: &UserName, name: &str, identifier: &str) -> Result<(), Refusal> {
        let id = context.model.find(user, name, "a")?;
        let owner = context.model.mailbox(id).map(|mailbox| &mailbox.owner);
        let all = Rights::ALL.to_string();
        let entry = context.model.entry(identifier)?;
        // The owner has all and keeps them; to others each right can be given by itself.
        let rights = match &entry.identifier {
            Identifier::User(user) if Some(user) == owner => all,
            Identifier::Owner => all,
            _ => all.chars().fold("\"\"".to_owned(), |rights, right| format!("{rights} {right}")),
        };
        let mut line = format!("* LISTRIGHTS {} ", shown_name(name)).into_bytes();
        string(&mut line, identifier.as_bytes());
        self.to_client.extend_from_slice(&line);
        self.line(&format!(" {rights}"));
        Ok(())
    }
}
