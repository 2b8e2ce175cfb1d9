"""The clinical content as data: what people have, take, are given and are measured for."""

from dataclasses import dataclass

from sandbox.population.elements import CVX, ICD10, LOINC, RXNORM, SNOMED, Resource, coding


@dataclass(frozen=True, slots=True)
class Problem:
    """A condition, how common it is, and what is taken for it."""

    snomed: tuple[str, str]
    icd10: tuple[str, str]
    prevalence: float
    """Among people of the ages below."""
    ages: tuple[int, int]
    medication: tuple[str, str] | None
    """An RxNorm clinical drug."""
    dose: str = ""

    @property
    def codings(self) -> list[Resource]:
        """SNOMED CT first, then ICD-10-CM."""
        return [coding(SNOMED, *self.snomed), coding(ICD10, *self.icd10)]


@dataclass(frozen=True, slots=True)
class Measure:
    """An observation with its reference range and how many decimals are reported."""

    loinc: tuple[str, str]
    unit: str
    low: float
    high: float
    decimals: int = 0
    raised_by: str | None = None
    """The SNOMED code of the condition that drives it out of range."""
    raised_to: tuple[float, float] = (0, 0)

    @property
    def coding(self) -> Resource:
        """The LOINC coding."""
        return coding(LOINC, *self.loinc)


HYPERTENSION = "59621000"
DIABETES = "44054006"
HYPERLIPIDEMIA = "55822004"
HYPOTHYROIDISM = "40930008"
KIDNEY_DISEASE = "433144002"

PROBLEMS = (
    Problem(
        (HYPERTENSION, "Essential hypertension"),
        ("I10", "Essential (primary) hypertension"),
        0.35,
        (35, 120),
        ("314076", "lisinopril 10 MG Oral Tablet"),
        "Take 1 tablet by mouth once daily.",
    ),
    Problem(
        (DIABETES, "Type 2 diabetes mellitus"),
        ("E11.9", "Type 2 diabetes mellitus without complications"),
        0.15,
        (40, 120),
        ("861007", "metformin hydrochloride 500 MG Oral Tablet"),
        "Take 1 tablet by mouth twice daily with meals.",
    ),
    Problem(
        (HYPERLIPIDEMIA, "Hyperlipidemia"),
        ("E78.5", "Hyperlipidemia, unspecified"),
        0.3,
        (35, 120),
        ("617310", "atorvastatin 20 MG Oral Tablet"),
        "Take 1 tablet by mouth at bedtime.",
    ),
    Problem(
        ("195967001", "Asthma"),
        ("J45.909", "Unspecified asthma, uncomplicated"),
        0.1,
        (5, 120),
        ("745679", "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler"),
        "Inhale 2 puffs every 4 to 6 hours as needed.",
    ),
    Problem(
        (HYPOTHYROIDISM, "Hypothyroidism"),
        ("E03.9", "Hypothyroidism, unspecified"),
        0.07,
        (25, 120),
        ("892246", "levothyroxine sodium 0.1 MG Oral Tablet"),
        "Take 1 tablet by mouth once daily before breakfast.",
    ),
    Problem(
        ("235595009", "Gastroesophageal reflux disease"),
        ("K21.9", "Gastro-esophageal reflux disease without esophagitis"),
        0.15,
        (20, 120),
        ("198051", "omeprazole 20 MG Delayed Release Oral Capsule"),
        "Take 1 capsule by mouth once daily before a meal.",
    ),
    Problem(
        ("370143000", "Major depressive disorder"),
        ("F32.9", "Major depressive disorder, single episode, unspecified"),
        0.1,
        (16, 120),
        ("312941", "sertraline 50 MG Oral Tablet"),
        "Take 1 tablet by mouth once daily.",
    ),
    Problem(
        ("49436004", "Atrial fibrillation"),
        ("I48.91", "Unspecified atrial fibrillation"),
        0.08,
        (60, 120),
        ("1364445", "apixaban 5 MG Oral Tablet"),
        "Take 1 tablet by mouth twice daily.",
    ),
    Problem(
        (KIDNEY_DISEASE, "Chronic kidney disease stage 3"),
        ("N18.30", "Chronic kidney disease, stage 3 unspecified"),
        0.07,
        (55, 120),
        None,
    ),
    Problem(
        ("367498001", "Seasonal allergic rhinitis"),
        ("J30.2", "Other seasonal allergic rhinitis"),
        0.15,
        (4, 60),
        ("311372", "loratadine 10 MG Oral Tablet"),
        "Take 1 tablet by mouth once daily as needed.",
    ),
)

LABORATORY = (
    Measure(("2345-7", "Glucose [Mass/volume] in Serum or Plasma"), "mg/dL", 70, 99, 0, DIABETES, (115, 220)),
    Measure(("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), "%", 4.0, 5.6, 1, DIABETES, (6.5, 9.4)),
    Measure(
        ("13457-7", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation"),
        "mg/dL",
        50,
        129,
        0,
        HYPERLIPIDEMIA,
        (130, 190),
    ),
    Measure(
        ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma"), "mg/dL", 0.6, 1.2, 2, KIDNEY_DISEASE, (1.4, 2.1)
    ),
    Measure(("2823-3", "Potassium [Moles/volume] in Serum or Plasma"), "mmol/L", 3.5, 5.1, 1),
    Measure(("718-7", "Hemoglobin [Mass/volume] in Blood"), "g/dL", 12.0, 17.0, 1),
    Measure(
        ("3016-3", "Thyrotropin [Units/volume] in Serum or Plasma"), "m[IU]/L", 0.4, 4.0, 2, HYPOTHYROIDISM, (4.5, 9.0)
    ),
)

SYSTOLIC = Measure(("8480-6", "Systolic blood pressure"), "mm[Hg]", 102, 128, 0, HYPERTENSION, (132, 158))
DIASTOLIC = Measure(("8462-4", "Diastolic blood pressure"), "mm[Hg]", 62, 82, 0, HYPERTENSION, (82, 98))
VITAL_SIGNS = (
    Measure(("8867-4", "Heart rate"), "/min", 58, 96),
    Measure(("9279-1", "Respiratory rate"), "/min", 12, 20),
    Measure(("8310-5", "Body temperature"), "Cel", 36.2, 37.4, 1),
    Measure(("2708-6", "Oxygen saturation in Arterial blood"), "%", 95, 100),
)
BLOOD_PRESSURE = coding(LOINC, "85354-9", "Blood pressure panel with all children optional")
HEIGHT = coding(LOINC, "8302-2", "Body height")
WEIGHT = coding(LOINC, "29463-7", "Body weight")
BODY_MASS_INDEX = coding(LOINC, "39156-5", "Body mass index (BMI) [Ratio]")

VACCINES = (
    (coding(CVX, "150", "Influenza, injectable, quadrivalent, preservative free"), 0),
    (coding(CVX, "03", "MMR"), 1),
    (coding(CVX, "115", "Tdap"), 11),
    (coding(CVX, "187", "zoster recombinant"), 50),
)
"""Each with the age in years from which it is given."""

ALLERGENS = (
    (coding(RXNORM, "7980", "penicillin G"), "medication", coding(SNOMED, "247472004", "Wheal")),
    (coding(RXNORM, "1191", "aspirin"), "medication", coding(SNOMED, "422587007", "Nausea")),
    (coding(SNOMED, "762952008", "Peanut"), "food", coding(SNOMED, "39579001", "Anaphylaxis")),
    (coding(SNOMED, "735029006", "Shellfish"), "food", coding(SNOMED, "247472004", "Wheal")),
    (coding(SNOMED, "1003755004", "Hevea brasiliensis latex"), "environment", coding(SNOMED, "271807003", "Eruption")),
)
"""Substance, category, reaction."""
NO_KNOWN_ALLERGY = coding(SNOMED, "716186003", "No known allergy")
