"""Methods: trl's trainers on the rows of this project, one file each."""
