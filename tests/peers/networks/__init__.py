"""The networks that are compared, once in each framework. All take one HU window, in [0, 1].

`covidscan_cnn` is CovidScan's: valid padding, two logits. `keras_example` is that of the Keras example "3D image
classification from CT scans" (H. Zunair): one logit. The example's own valid padding needs 46 slices and the records
have 32, so that here it pads ("same"), which changes none of its parameters. Both have Keras's defaults: Glorot's
kernels, batch normalisation with momentum 0.99 and epsilon 1e-3.
"""
