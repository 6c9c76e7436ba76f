"""The demo: a real, planted Clever Hans on Fashion-MNIST, found without being told about it."""
