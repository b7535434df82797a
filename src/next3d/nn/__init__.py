"""Network building blocks that know nothing about heads: equalised layers, resampling, StyleGAN2 and the style UNet."""
