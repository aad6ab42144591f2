# A world model for many players, on a CPU:  docker build -t wmdeploy .
#   docker run --rm -p 8765:8765 wmdeploy                            http://localhost:8765/
#   docker run --rm -p 8765:8765 -v $PWD/bundles:/app/bundles:ro wmdeploy \
#     serve bundles/mine --host 0.0.0.0 --name play.example.org --token-file bundles/token
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY engines engines
COPY exporters exporters
COPY benchmarks benchmarks
COPY wmdeploy wmdeploy
RUN pip install --no-cache-dir -c constraints.txt ".[cpu,serve]"
COPY examples examples
USER nobody
ENV XDG_CACHE_HOME=/tmp/cache
EXPOSE 8765
ENTRYPOINT ["wmdeploy"]
CMD ["serve", "examples/pong", "--host", "0.0.0.0", "--name", "localhost", "--no-token"]
