# A stand-in for NVIDIA's riva-speech image: the official programs in the official places, started
# by an entry point, as root. Behind them works our engine; their faults are those that are known.
ARG SPEECH
FROM ${SPEECH}
USER root
RUN rm -r /data
COPY stand_in /opt/riva/bin
RUN chmod 755 /opt/riva/bin/deploy_all_models /opt/riva/bin/start-riva /opt/riva/bin/entrypoint.sh
WORKDIR /opt/riva
HEALTHCHECK NONE
ENTRYPOINT ["/opt/riva/bin/entrypoint.sh"]
