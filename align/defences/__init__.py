"""Defences at inference time: a model behind a defence is a model. One file for each defence, with its source."""
