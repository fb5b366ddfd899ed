//! Why NVIDIA's driver offers no device, in words, from what was found of it. This module looks at nothing itself.

use super::found::Problem;

/// What was found of an NVIDIA driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nvidia {
    /// What the driver's library answered: how many devices it offers, or its error, by name. `None`: there is no
    /// library.
    pub answer: Option<Result<usize, String>>,
    /// The version of the kernel's driver, where it is loaded.
    pub version: Option<String>,
    /// The names of the cards that the kernel's driver has.
    pub cards: Vec<String>,
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible: Option<String>,
}

/// Why there is no CUDA device; `None` when there is one.
pub fn explain(found: &Nvidia) -> Option<Problem> {
    const REMEDY: &str = "unset CUDA_VISIBLE_DEVICES, or list in it the numbers of the GPUs to use: `0,1`";
    let Nvidia { answer, version, cards, visible } = found;
    if let Some(Ok(1..)) = answer {
        return None;
    }
    // Without a driver it does not matter what is hidden.
    if answer.is_some()
        && let Some(hidden) = hidden(found)
    {
        return Some(Problem::new(hidden).help(REMEDY));
    }
    let problem = match (answer, version) {
        (None, None) => Problem::new("no NVIDIA driver: its library, libcuda.so.1, was not found")
            .help("install NVIDIA's driver (`nvidia-smi` must list the GPU), or choose `cpu` or `auto`"),
        (None, Some(version)) => {
            Problem::new(format!("the kernel has NVIDIA's driver {version}, but its library, libcuda.so.1, was not found"))
                .help("in a container, start it with `--gpus all` (NVIDIA Container Toolkit); else add its directory to LD_LIBRARY_PATH")
        }
        (Some(Err(error)), _) if visible.is_none() || !error.contains("NO_DEVICE") => {
            refused(error, version.as_deref(), cards.len())
        }
        (Some(_), _) if visible.is_none() => Problem::new("NVIDIA's driver offers no GPU")
            .help("`nvidia-smi` must list it; in a container or a batch job, request a GPU"),
        (Some(_), _) => Problem::new(format!(
            "NVIDIA's driver offers no GPU, and CUDA_VISIBLE_DEVICES is `{}`",
            visible.as_deref().unwrap_or_default()
        ))
        .help(REMEDY),
    };
    Some(problem)
}

/// An error of the driver's library, by its name.
fn refused(error: &str, version: Option<&str>, cards: usize) -> Problem {
    let driver = version.map_or("NVIDIA's driver".to_owned(), |version| format!("NVIDIA's driver {version}"));
    let has = |name: &str| error.contains(name);
    if has("NO_DEVICE") {
        return match cards {
            0 => Problem::new(format!("{driver} finds no GPU")).help("`nvidia-smi` must list it"),
            _ => Problem::new(format!("{driver} offers no GPU, though the machine has {cards}"))
                .help("in a container or a batch job, request a GPU; /dev/nvidia* must be readable"),
        };
    }
    if has("INSUFFICIENT_DRIVER") || has("SYSTEM_DRIVER_MISMATCH") || has("COMPAT_NOT_SUPPORTED") || has("STUB") {
        return Problem::new(format!("{driver} is too old, or its library and the kernel's part differ: {error}"))
            .help("update the driver, or restart after an update; `nvidia-smi` shows its version");
    }
    Problem::new(format!("{driver} does not start: {error}"))
        .help("`nvidia-smi` must list the GPU; restart the machine if it fails, too")
}

/// That CUDA_VISIBLE_DEVICES hides cards, where it does.
pub fn hidden(found: &Nvidia) -> Option<String> {
    let visible = found.visible.as_deref()?;
    let offered = found.answer.as_ref().and_then(|answer| answer.as_ref().ok()).copied().unwrap_or_default();
    let cards = found.cards.len();
    if visible.trim().is_empty() || visible.trim() == "-1" {
        let all =
            if cards == 0 { "all GPUs".to_owned() } else { format!("all GPUs, of which the machine has {cards}") };
        let is = if visible.trim().is_empty() { "is empty" } else { "is `-1`" };
        return Some(format!("CUDA_VISIBLE_DEVICES {is}, which hides {all}"));
    }
    (cards > offered).then(|| {
        let hidden = cards - offered;
        format!("CUDA_VISIBLE_DEVICES is `{visible}`, which hides {hidden} of the machine's {cards} GPUs")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(found: &Nvidia) -> String {
        explain(found).map_or("none".to_owned(), |problem| {
            format!("{}\n  help: {}", problem.message, problem.help.unwrap_or_default())
        })
    }

    fn two_cards() -> Nvidia {
        let cards = vec!["NVIDIA H200".to_owned(); 2];
        Nvidia { answer: Some(Ok(2)), version: Some("580.65.06".to_owned()), cards, visible: None }
    }

    #[test]
    fn a_missing_or_hiding_nvidia_driver_is_explained() {
        assert_eq!(explain(&two_cards()), None);
        let visible = |text: &str| Some(text.to_owned());
        let error = |name: &str| Nvidia { answer: Some(Err(name.to_owned())), ..two_cards() };
        let cases = [
            Nvidia::default(),
            Nvidia { visible: visible(""), ..Nvidia::default() },
            Nvidia { answer: None, ..two_cards() },
            Nvidia { answer: Some(Ok(0)), visible: visible(""), ..two_cards() },
            Nvidia { answer: Some(Err("CUDA_ERROR_NO_DEVICE".to_owned())), visible: visible("-1"), ..two_cards() },
            Nvidia { answer: Some(Ok(0)), visible: visible("7"), ..two_cards() },
            Nvidia { answer: Some(Ok(0)), cards: vec![], ..two_cards() },
            error("CUDA_ERROR_NO_DEVICE"),
            Nvidia { visible: visible("5"), cards: vec![], ..error("CUDA_ERROR_NO_DEVICE") },
            error("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
            error("CUDA_ERROR_UNKNOWN"),
        ];
        insta::assert_snapshot!(cases.iter().map(said).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn what_hides_some_of_the_cards_is_named() {
        let found = Nvidia { answer: Some(Ok(1)), visible: Some("1".to_owned()), ..two_cards() };
        assert_eq!(hidden(&found).unwrap(), "CUDA_VISIBLE_DEVICES is `1`, which hides 1 of the machine's 2 GPUs");
        assert_eq!(hidden(&Nvidia { visible: Some("0,1".to_owned()), ..two_cards() }), None);
        assert_eq!(hidden(&two_cards()), None);
    }
}
