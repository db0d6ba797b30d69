"""One use case per Lambda entry point; each depends on the domain and on ports only."""
