mod limits;
mod load;
