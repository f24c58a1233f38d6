"""In and out of torch.optim: `fo.torch_optim`."""
