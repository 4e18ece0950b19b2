"""What every layer needs: config, errors, plugins, seeds, devices."""
