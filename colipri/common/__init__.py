"""Small pieces that every other package may use: errors, atomic files, progress, processes."""
