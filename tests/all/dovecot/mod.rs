mod acl;
mod agent;
mod clients;
mod faults;
mod idle;
mod names;
mod rights;
