mod deployment;
mod figures;
mod picture;
mod steps;
