# Settings of JupyterHub; what is not here is as it comes.
c = get_config()  # noqa: F821 - JupyterHub gives it

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/tls/certificate.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/tls/key.pem"
c.JupyterHub.cookie_secret_file = "/var/lib/jupyterhub/cookie_secret"
c.JupyterHub.db_url = "sqlite:////var/lib/jupyterhub/jupyterhub.sqlite"
c.ConfigurableHTTPProxy.pid_file = "/run/jupyterhub/proxy.pid"
# The hub itself, and the notebooks, are reached through the proxy only.
c.JupyterHub.hub_ip = "127.0.0.1"
c.Spawner.ip = "127.0.0.1"
c.Spawner.default_url = "/tree"
c.PAMAuthenticator.open_sessions = False
