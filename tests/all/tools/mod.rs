mod api_fuzz;
mod javascript;
mod readme;
