//! Collects what is wrong with settings.

use std::collections::BTreeSet;

use super::fault::Fault;
use super::settings::TlsSettings;

/// Collects faults.
pub(super) struct Checker<'a> {
    known_bad: &'a BTreeSet<String>,
    faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    /// `known_bad`: the settings that have a fault already.
    pub fn new(known_bad: &'a BTreeSet<String>) -> Self {
        Self { known_bad, faults: Vec::new() }
    }

    /// What has been collected.
    pub fn faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Records a fault of `settings[0]` unless `good`; says nothing where one of `settings` is
    /// known to be bad.
    pub fn require(&mut self, settings: &[&str], good: bool, problem: impl Into<String>, hint: impl Into<String>) {
        if !good && !settings.iter().any(|setting| self.is_known_bad(setting)) {
            self.faults.push(Fault::new(settings[0], problem, hint));
        }
    }

    /// An element of a list (`queue.brokers[0]`) is, where the whole list is; a list, where an
    /// element is.
    fn is_known_bad(&self, setting: &str) -> bool {
        let list = setting.split('[').next().unwrap_or_default();
        let is_element_bad = || {
            let from = format!("{setting}[");
            self.known_bad.range(from.clone()..).next().is_some_and(|bad| bad.starts_with(&from))
        };
        self.known_bad.contains(setting) || self.known_bad.contains(list) || is_element_bad()
    }

    /// A number that must be at least `least`.
    pub fn at_least(&mut self, setting: &str, value: u64, least: u64) {
        let more = if least == 1 { "greater than 0".to_owned() } else { format!("{least} or more") };
        self.require(&[setting], value >= least, format!("is {value}"), format!("It must be {more}."));
    }

    /// A number that must be at most `most`.
    pub fn at_most(&mut self, setting: &str, value: u64, most: u64) {
        self.require(&[setting], value <= most, format!("is {value}"), format!("It must be {most} or less."));
    }

    /// Two settings, each with whether it is set, that come together or not at all.
    pub fn together(&mut self, one: (&str, bool), other: (&str, bool), hint: &str) {
        for ((missing, is_set), (present, other_is_set)) in [(one, other), (other, one)] {
            self.require(&[missing, present], is_set || !other_is_set, format!("is missing although {present} is set"), hint);
        }
    }

    pub fn tls(&mut self, section: &str, tls: &TlsSettings) {
        let [enabled, ca, certificate, key] =
            ["enabled", "ca_file", "certificate_file", "key_file"].map(|name| format!("{section}.{name}"));
        let files = [(&certificate, tls.certificate_file.is_some()), (&key, tls.key_file.is_some())];
        let [certificate, key] = files.map(|(name, is_set)| (name.as_str(), is_set));
        self.together(certificate, key, "A client certificate needs its key; without one, set neither.");
        let good = tls.enabled || !(tls.ca_file.is_some() || certificate.1 || key.1);
        let hint = "Set it to true, or remove the files: as it is, nothing would be encrypted.";
        self.require(&[&enabled, &ca, certificate.0, key.0], good, "is false although TLS files are set", hint);
    }
}
