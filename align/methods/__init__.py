"""Methods: trl's trainers over our rows, one file each."""
