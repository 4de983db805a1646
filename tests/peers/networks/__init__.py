"""Networks of the comparison, once in each framework. All take one HU window, in [0, 1].

`covidscan_cnn` is the original CovidScan's: valid padding, two logits. `keras_example` is that of the Keras example
"3D image classification from CT scans" (H. Zunair): one logit. The example's valid padding needs 46 slices, and
the records have 32; here it pads ("same"), which does not change its parameters. Both use Keras's defaults: Glorot
kernel initialisation, batch normalisation with momentum 0.99 and epsilon 1e-3.
"""
