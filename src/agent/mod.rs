//! The origin's side: takes a mail server's changes in, completes and spools them, and publishes.
