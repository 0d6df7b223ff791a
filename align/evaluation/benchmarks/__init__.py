"""Published benchmarks, one small file each."""
