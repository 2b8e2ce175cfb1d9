"""One file per journey, one public class with one call, read top to bottom. No HTTP here: values in, values out."""
