"""What a model does with demonstrations: where the last token looks, what keys and values hold."""
