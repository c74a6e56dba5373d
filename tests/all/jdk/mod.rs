mod acl_cluster;
mod acl_cluster_changes;
mod acls;
mod cluster;
mod cluster_failures;
mod cluster_rest;
mod queue;
mod registry;
