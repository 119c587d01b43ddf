"""All that touches torch: loading and quantising, adapters, training, answering, generation, encoders."""
