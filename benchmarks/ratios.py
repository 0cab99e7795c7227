"""The financial ratios of the default scorecard: their formulas, their directions and the words of their reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One characteristic: its formula, which way risk moves with it, and the words of its reasons."""

    name: str
    title: str
    formula: str
    direction: str  # of the points as the ratio rises
    code: str
    subject: str  # with {} where the range stands
    weak: str  # what an adverse value means
    strong: str  # what the best bin means


def _falling(name: str, title: str, formula: str, code: str, subject: str, weak: str, strong: str) -> Ratio:
    return Ratio(name, title, formula, "falling", code, subject, weak, strong)


def _rising(name: str, title: str, formula: str, code: str, subject: str, weak: str, strong: str) -> Ratio:
    return Ratio(name, title, formula, "rising", code, subject, weak, strong)


# Each divides by an amount that a working company has, so that no debt, no stock or no interest is a value, not a gap.
RATIOS = (
    # liquidity
    _falling(
        "current_ratio",
        "Current assets to current liabilities",
        "current_assets / current_liabilities",
        "CURRENT",
        "Current assets are {} of current liabilities",
        "so debts due within the year may not be met from assets due within the year",
        "a comfortable cover of the debts due within the year",
    ),
    _falling(
        "quick_ratio",
        "Current assets without inventories to current liabilities",
        "(current_assets - inventories) / current_liabilities",
        "QUICK",
        "Current assets without inventories are {} of current liabilities",
        "so meeting short-term debt depends on selling stock",
        "so short-term debt can be met with little reliance on selling stock",
    ),
    _falling(
        "cash_ratio",
        "Cash to current liabilities",
        "cash / current_liabilities",
        "CASH",
        "Cash and short-term securities are {} of current liabilities",
        "which leaves hardly any reserve for bills that fall due",
        "a solid reserve for bills that fall due",
    ),
    _falling(
        "liquid_assets_to_revenue",
        "Cash and receivables to revenue",
        "(cash + receivables) / revenue",
        "LIQUID",
        "Cash and receivables are {} of a year's revenue",
        "so little money is at hand or on its way for the size of the business",
        "enough money at hand or on its way for the size of the business",
    ),
    # leverage
    _rising(
        "liabilities_to_assets",
        "Total liabilities to total assets",
        "total_liabilities / total_assets",
        "LEVERAGE",
        "Total liabilities are {} of total assets",
        "which leaves a thin cushion of equity, or none, against losses",
        "which leaves a thick cushion of equity against losses",
    ),
    _falling(
        "retained_earnings_to_assets",
        "Retained earnings to total assets",
        "retained_earnings / total_assets",
        "RETAINED",
        "Retained earnings are {} of total assets",
        "which means that past losses have not been made good",
        "which shows that past profits were kept in the company",
    ),
    # coverage
    _falling(
        "cash_flow_to_liabilities",
        "Net income and depreciation to total liabilities",
        "(net_income + depreciation) / total_liabilities",
        "DEBT_COVER",
        "Net income before depreciation is {} of total liabilities",
        "too little to pay the debts down from earnings",
        "enough to pay the debts down from earnings within a few years",
    ),
    _falling(
        "cash_flow_to_current_liabilities",
        "Pre-tax profit and depreciation to current liabilities",
        "(ebt + depreciation) / current_liabilities",
        "SHORT_DEBT_COVER",
        "Pre-tax profit before depreciation is {} of current liabilities",
        "too little to carry the debts due within the year",
        "a good part of what falls due within the year",
    ),
    _rising(
        "interest_to_revenue",
        "Interest expense to revenue",
        "interest_expense / revenue",
        "INTEREST",
        "Interest expense is {} of revenue",
        "a heavy burden should sales or rates turn",
        "a light burden or none",
    ),
    # turnover
    _rising(
        "current_liabilities_to_revenue",
        "Current liabilities to revenue",
        "current_liabilities / revenue",
        "PAYMENT",
        "Current liabilities are {} of a year's revenue",
        "which suggests that bills are paid late",
        "which suggests that bills are paid promptly",
    ),
    _rising(
        "operating_cycle",
        "Receivables and inventories to revenue",
        "(receivables + inventories) / revenue",
        "CYCLE",
        "Receivables and inventories are {} of a year's revenue",
        "so money stays tied up in unpaid invoices and unsold stock",
        "so invoices and stock turn into money in reasonable time",
    ),
    # margin and return
    _falling(
        "gross_margin",
        "Gross margin",
        "(revenue - cost_of_sales) / revenue",
        "GROSS_MARGIN",
        "The margin of revenue over cost of sales is {} of revenue",
        "so sales do not carry their own cost",
        "which leaves room for overheads and setbacks",
    ),
    _falling(
        "cash_flow_margin",
        "Pre-tax profit and depreciation to revenue",
        "(ebt + depreciation) / revenue",
        "CASH_MARGIN",
        "Pre-tax profit before depreciation is {} of revenue",
        "so the business consumes money as it trades",
        "so the business brings in money as it trades",
    ),
    _falling(
        "return_on_assets",
        "Net income to total assets",
        "net_income / total_assets",
        "RETURN",
        "Net income is {} of total assets",
        "so the assets earn a loss",
        "a healthy profit on the assets employed",
    ),
    # growth
    _falling(
        "revenue_growth",
        "Revenue to last year's revenue",
        "revenue / prior.revenue",
        "GROWTH",
        "Revenue is {} of last year's",
        "a marked loss of business",
        "a growing business",
    ),
    _falling(
        "revenue_change_to_assets",
        "Change of revenue to total assets",
        "(revenue - prior.revenue) / total_assets",
        "REVENUE_CHANGE",
        "The change of revenue against last year is {} of total assets",
        "so assets built for a larger business now have less to do",
        "so the assets carry visibly more business than a year ago",
    ),
    # investment
    _falling(
        "depreciation_to_assets",
        "Depreciation to total assets",
        "depreciation / total_assets",
        "DEPRECIATION_ASSETS",
        "Depreciation is {} of total assets",
        "which means few productive assets, or wear that the accounts do not show",
        "as expected of a company with productive assets",
    ),
    _falling(
        "depreciation_to_revenue",
        "Depreciation to revenue",
        "depreciation / revenue",
        "DEPRECIATION_REVENUE",
        "Depreciation is {} of revenue",
        "which means sales made with hardly any equipment, or wear that the accounts do not show",
        "as expected of a company that trades with its own equipment",
    ),
)
