//! What the images of the services say, for the modules that need it.

use super::Context;
use super::probes::ImageCheck;
use super::security::Accounts;
use crate::migrate::images::ImageFacts;
use crate::migrate::stack::{Protocol, Service};

impl Context<'_> {
    /// The image of a service, where an archive has it.
    #[must_use]
    pub fn image(&self, service: &Service) -> Option<&ImageFacts> {
        self.images.find(&service.image.as_ref()?.value)
    }

    /// The ports that the image of a service says it uses.
    #[must_use]
    pub fn exposed(&self, service: &Service) -> Vec<(u16, Protocol)> {
        self.image(service).map(|image| image.exposed.clone()).unwrap_or_default()
    }

    /// The health check of the image of a service.
    #[must_use]
    pub fn health_check(&self, service: &Service) -> Option<ImageCheck> {
        let image = self.image(service)?;
        let check = image.health_check.as_ref()?;
        Some(ImageCheck {
            test: check.test.clone(),
            shell: image.shell.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        })
    }
}

impl Accounts for ImageFacts {
    fn user(&self, name: &str) -> Option<u32> {
        self.user_id(name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.group_id(name)
    }

    fn default_user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}
