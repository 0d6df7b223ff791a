"""Published evaluation sets, one small file each."""
