"""See what happens behind ``loss.backward()``, and whether it is right."""
