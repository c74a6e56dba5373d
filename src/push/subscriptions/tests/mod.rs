mod histories;
mod listings;
mod moves;
mod play;
mod rights;
mod share_troubles;
mod shares;
mod standing;
