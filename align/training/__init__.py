"""How a training run starts: cheap checks come before everything that takes time."""
