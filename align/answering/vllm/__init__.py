"""vLLM as the engine that generates responses: a child process in an environment of its own, checked
against transformers.
"""
