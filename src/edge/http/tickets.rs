//! `POST /v1/tickets`, and redeeming a ticket at the node that gave it out.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use reqwest::Method;
use serde_json::json;

use super::caller::{Caller, Segment};
use super::peers::ask_node;
use super::problem::Problem;
use crate::edge::auth::{Identity, Scopes};
use crate::edge::gateway::Gateway;
use crate::edge::tickets::{LIFETIME, Ticket};

/// `POST /v1/tickets`: a single-use ticket for the caller.
pub async fn issue(State(gateway): State<Arc<Gateway>>, caller: Caller) -> Result<Response, Problem> {
    caller.must(Scopes::PUSH, "push")?;
    let ticket = gateway.tickets.issue(gateway.node(), caller.identity, Instant::now());
    let ticket = ticket.map_err(|error| Problem::too_many(error.to_string()).with_retry_after(LIFETIME))?;
    Ok((StatusCode::CREATED, Json(json!({ "ticket": ticket, "expires_in_ms": LIFETIME.as_millis() as u64 }))).into_response())
}

/// `POST /v1/local/tickets/{number}`: for other nodes. Having the ticket is the right to redeem it.
pub async fn redeem_local(State(gateway): State<Arc<Gateway>>, Segment(number): Segment) -> Result<Json<Identity>, Problem> {
    gateway.tickets.redeem(&number, Instant::now()).map(Json).ok_or_else(Problem::ticket)
}

/// Whose ticket this is: it is redeemed here, or at the node that gave it out.
pub async fn redeem(gateway: &Gateway, text: &str) -> Result<Identity, Problem> {
    let ticket = Ticket::parse(text).ok_or_else(Problem::ticket)?;
    if ticket.node == *gateway.node() {
        return gateway.tickets.redeem(&ticket.number, Instant::now()).ok_or_else(Problem::ticket);
    }
    let path = format!("/v1/local/tickets/{}", ticket.number);
    let answer = ask_node(gateway, &ticket.node, (Method::POST, &path), None, StatusCode::UNAUTHORIZED).await;
    // Whoever is told 401 throws the ticket away: not while it may be good.
    let silent = |_| Problem::unavailable("the node that gave the ticket out does not answer: try again, or get a new one");
    answer.map_err(silent)?.ok_or_else(Problem::ticket)
}
