mod histories;
mod moves;
mod play;
mod renames;
mod rights;
mod shares;
mod standing;
