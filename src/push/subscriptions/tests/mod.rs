mod allows;
mod histories;
mod moves;
mod play;
mod rights;
mod shares;
mod standing;
mod threads;
