"""What the sample functions share; stands for a layer."""

LAYER_NAME = "shared"
