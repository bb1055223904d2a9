"""Parts of the gradient account: implicit updates of attention and MLPs, explicit gradient steps, and their match."""
