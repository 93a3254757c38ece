import os

os.mkdir("galley-marker")
