"""Small lists of every format, invented, for the tests of their readers."""

from __future__ import annotations

import json
from pathlib import Path

SDN = "\r\n".join(
    [
        '36,"QUARTZ FERRY LINES",-0- ,"CUBA",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"a.k.a. \'QFL\'; all offices."',
        '401,"VANTORRE, Elias Maarten","individual","SDGT] [IFSR","Captain",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,'
        '"DOB 02 Mar 1970; alt. DOB circa 1969; POB Ghent, Belgium; nationality Belgium; citizen Cuba; '
        "Passport EX12345 (Belgium) expires 01 Jan 2030; alt. Passport B 77 issued 02 Feb 2002; "
        "National ID No. 70.03.02-123.45 (Belgium); a.k.a. 'IRON, Elias'; Linked To: QUARTZ FERRY LINES.\"",
        '402,"OKORONKWO, Ada, Jr.","individual","SDGT",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"DOB 1960 to 1962."',
        '403,"PALE LANTERN","vessel","CUBA",-0- ,"CL2685","Bulk Carrier","640","478","Panama","Quartz Lines",'
        '"Former Vessel Flag Malta; Vessel Registration Identification IMO 9999917; MMSI 999000403."',
        '404,"EP-QRZ","aircraft","CUBA",-0- ,-0- ,-0- ,-0- ,-0- ,"None Identified",-0- ,"Aircraft Tail Number EP-4."',
        '405,"GRANITE HOLDINGS, LTD.",-0- ,"CUBA",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,'
        '"Registration Number HRB 1234 (Germany); Tax ID No. 7724244406 (Russia); V.A.T. Number BG 831036657 '
        "(Bulgaria); File Number 7136973 (Delaware) (United States); Matricula Mercantil No 21-573208-02 (Medellin); "
        'Legal Entity Number 485100GBI2SE0KIX8T70; SWIFT/BIC HAVIGB2L; Phone Number 09 738 27777."',
        "\x1a",
    ]
)
ALT = "\r\n".join(
    [
        '36,12,"aka","QUARTZ-FERRY",-0- ',
        '401,13,"aka","VAN TORRE, Elias",-0- ',
        '405,14,"fka","GRANITE HOLDING, S.A.",-0- ',
        "\x1a",
    ]
)
ADD = "\r\n".join(
    [
        '36,25,-0- ,"Havana","Cuba",-0- ',
        '401,26,"Kade 1","Ghent 9000","Belgium",-0- ',
        "402,27,-0- ,-0- ,-0- ,-0- ",
        '405,28,-0- ,-0- ,"Region: Kafia Kingi",-0- ',
        "\x1a",
    ]
)

UN = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<CONSOLIDATED_LIST dateGenerated="2026-02-27T00:00:09.554Z">
  <INDIVIDUALS>
    <INDIVIDUAL>
      <DATAID>1</DATAID><FIRST_NAME>ELIAS</FIRST_NAME><SECOND_NAME>MAARTEN</SECOND_NAME>
      <THIRD_NAME>VANTORRE</THIRD_NAME><UN_LIST_TYPE>Test</UN_LIST_TYPE><REFERENCE_NUMBER>TEi.001</REFERENCE_NUMBER>
      <NAME_ORIGINAL_SCRIPT>الياس
          فانتور</NAME_ORIGINAL_SCRIPT>
      <NATIONALITY><VALUE>Iran (Islamic Republic of)</VALUE></NATIONALITY>
      <INDIVIDUAL_ALIAS><QUALITY>Good</QUALITY><ALIAS_NAME>Elyas Vantor; Elias van Torre</ALIAS_NAME>
        <DATE_OF_BIRTH>1971-05-06</DATE_OF_BIRTH></INDIVIDUAL_ALIAS>
      <INDIVIDUAL_ALIAS><QUALITY>Low</QUALITY><ALIAS_NAME>Iron Elias</ALIAS_NAME></INDIVIDUAL_ALIAS>
      <INDIVIDUAL_ALIAS><QUALITY/><ALIAS_NAME/></INDIVIDUAL_ALIAS>
      <INDIVIDUAL_ADDRESS><CITY>na</CITY><COUNTRY>na</COUNTRY></INDIVIDUAL_ADDRESS>
      <INDIVIDUAL_ADDRESS><STREET>Kade 1</STREET><CITY>Ghent</CITY><COUNTRY>Belgium</COUNTRY></INDIVIDUAL_ADDRESS>
      <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE>EXACT</TYPE_OF_DATE><DATE>1970-03-02</DATE></INDIVIDUAL_DATE_OF_BIRTH>
      <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE>APPROXIMATELY</TYPE_OF_DATE><DATE>1969-01-01</DATE>
        </INDIVIDUAL_DATE_OF_BIRTH>
      <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE>BETWEEN</TYPE_OF_DATE><FROM_YEAR>1966</FROM_YEAR><TO_YEAR>1968</TO_YEAR>
        </INDIVIDUAL_DATE_OF_BIRTH>
      <INDIVIDUAL_DATE_OF_BIRTH><TYPE_OF_DATE>EXACT</TYPE_OF_DATE><NOTE>Nov. 1973 </NOTE></INDIVIDUAL_DATE_OF_BIRTH>
      <INDIVIDUAL_DOCUMENT><TYPE_OF_DOCUMENT>Passport</TYPE_OF_DOCUMENT><NUMBER>EX12345</NUMBER>
        <ISSUING_COUNTRY>Belgium</ISSUING_COUNTRY></INDIVIDUAL_DOCUMENT>
      <INDIVIDUAL_DOCUMENT><TYPE_OF_DOCUMENT>National Identification Number</TYPE_OF_DOCUMENT>
        <TYPE_OF_DOCUMENT2>Italian Fiscal Code:</TYPE_OF_DOCUMENT2><NUMBER>VNTLSE70C02Z103X</NUMBER>
        </INDIVIDUAL_DOCUMENT>
      <INDIVIDUAL_DOCUMENT><TYPE_OF_DOCUMENT>National Identification Number</TYPE_OF_DOCUMENT>
        <NUMBER>70.03</NUMBER></INDIVIDUAL_DOCUMENT>
      <INDIVIDUAL_DOCUMENT/>
    </INDIVIDUAL>
  </INDIVIDUALS>
  <ENTITIES>
    <ENTITY>
      <DATAID>2</DATAID><FIRST_NAME>QUARTZ FERRY LINES / QFL</FIRST_NAME><UN_LIST_TYPE>Test</UN_LIST_TYPE>
      <REFERENCE_NUMBER>TEe.001</REFERENCE_NUMBER>
      <ENTITY_ALIAS><QUALITY>a.k.a.</QUALITY><ALIAS_NAME>خطوط (Quartz One; Quartz Two)</ALIAS_NAME></ENTITY_ALIAS>
      <ENTITY_ALIAS><QUALITY>f.k.a.</QUALITY><ALIAS_NAME>Quartz J/V Shipping</ALIAS_NAME></ENTITY_ALIAS>
      <ENTITY_ADDRESS><CITY>Pyongyang</CITY><COUNTRY>Democratic People's Republic of Korea</COUNTRY></ENTITY_ADDRESS>
    </ENTITY>
  </ENTITIES>
</CONSOLIDATED_LIST>
"""

EU_XML = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<export xmlns="http://eu.europa.ec/fpi/fsd/export" generationDate="2026-08-05T16:47:04.449+02:00" globalFileId="1">
  <sanctionEntity designationDetails="" unitedNationId="" euReferenceNumber="EU.1.1" logicalId="13">
    <remark>A remark</remark>
    <regulation regulationType="regulation" programme="TAQA"><publicationUrl>x</publicationUrl></regulation>
    <subjectType code="person" classificationCode="P"/>
    <nameAlias firstName="Elias" middleName="" lastName="Vantorre" wholeName="Elias Vantorre" strong="true">
      <regulationSummary regulationType="regulation"/>
    </nameAlias>
    <nameAlias firstName="" middleName="" lastName="" wholeName="Iron Elias" strong="false" logicalId="3"/>
    <nameAlias firstName="Elyas" middleName="M." lastName="Vantor" wholeName="" strong="true" logicalId="4"/>
    <citizenship region="" countryIso2Code="BE" countryDescription="BELGIUM"/>
    <citizenship region="" countryIso2Code="00" countryDescription="UNKNOWN"/>
    <birthdate circa="false" calendarType="GREGORIAN" birthdate="1970-03-02" monthOfYear="3" year="1970"/>
    <birthdate circa="true" calendarType="GREGORIAN" birthdate="1969-01-01" year="1969"/>
    <birthdate circa="false" calendarType="GREGORIAN" yearRangeFrom="1966" yearRangeTo="1967"/>
    <birthdate circa="false" calendarType="GREGORIAN" monthOfYear="4" year="1971"/>
    <birthdate circa="false" calendarType="ISLAMIC" year="1402"/>
    <identification identificationTypeCode="passport" number="EX12345" countryIso2Code="BE"/>
    <identification identificationTypeCode="id" number="" latinNumber="70-03" countryIso2Code="00"/>
    <address street="Kade 1" poBox="" zipCode="9000" city="Ghent" region="" place="" countryIso2Code="BE"
      countryDescription="BELGIUM"/>
    <address street="" city="" countryIso2Code="00" countryDescription="UNKNOWN"/>
  </sanctionEntity>
  <sanctionEntity logicalId="14">
    <regulation programme="UKR"/>
    <subjectType code="enterprise" classificationCode="E"/>
    <nameAlias wholeName="ООО «Кварц»" strong="true"/>
    <identification identificationTypeCode="regnumber" number="1027700000000" countryIso2Code="RU"/>
    <identification identificationTypeCode="swiftbic" number="QUARRUMM" countryIso2Code="RU"/>
    <identification identificationTypeCode="imo" number="9999917" countryIso2Code="00"/>
    <identification identificationTypeCode="fiscalcode" number="7700000000" countryIso2Code="RU"/>
  </sanctionEntity>
</export>
"""

_GROUPS = {
    "Entity": "LogicalId EU_ReferenceNumber UnitedNationId DesignationDate DesignationDetails Remark SubjectType "
    "SubjectType_ClassificationCode Regulation_Type Regulation_OrganisationType Regulation_PublicationDate "
    "Regulation_EntryIntoForceDate Regulation_NumberTitle Regulation_Programme Regulation_PublicationUrl",
    "NameAlias": "LastName FirstName MiddleName WholeName NameLanguage Gender Title Function LogicalId "
    "RegulationLanguage Remark",
    "Address": "City Street PoBox ZipCode Region Place AsAtListingTime ContactInfo CountryIso2Code CountryDescription "
    "LogicalId RegulationLanguage Remark",
    "BirthDate": "BirthDate Day Month Year YearRangeFrom YearRangeTo Circa CalendarType ZipCode Region Place City "
    "CountryIso2Code CountryDescription LogicalId RegulationLanguage Remark",
    "Identification": "Number Diplomatic KnownExpired KnownFalse ReportedLost RevokedByIssuer IssuedBy IssuedDate "
    "ValidFrom ValidTo LatinNumber NameOnDocument TypeCode TypeDescription Region CountryIso2Code CountryDescription "
    "LogicalId RegulationLanguage Remark",
    "Citizenship": "Region CountryIso2Code CountryDescription LogicalId RegulationLanguage Remark",
}
EU_COLUMNS = ["fileGenerationDate", *(f"{group}_{name}" for group, names in _GROUPS.items() for name in names.split())]


def eu_row(**cells: str) -> str:
    """One row of the EU's CSV, by column; the date of the file is in each."""
    cells = {"fileGenerationDate": "05/08/2026", **cells}
    assert set(cells) <= set(EU_COLUMNS)
    return ";".join(cells.get(column, "") for column in EU_COLUMNS)


_PERSON = {
    "Entity_LogicalId": "13",
    "Entity_SubjectType": "P",
    "Entity_SubjectType_ClassificationCode": "person",
    "Entity_Regulation_Programme": "TAQA",
}
_FIRM = {
    "Entity_LogicalId": "14",
    "Entity_SubjectType": "E",
    "Entity_SubjectType_ClassificationCode": "enterprise",
    "Entity_Regulation_Programme": "UKR",
}
EU_CSV = "\ufeff" + "\r\n".join(
    [
        ";".join(EU_COLUMNS),
        eu_row(**_PERSON, NameAlias_WholeName="Elias Vantorre"),
        eu_row(**_FIRM, NameAlias_WholeName='"ООО ""Кварц"""'),
        eu_row(**_PERSON, NameAlias_FirstName="Elyas", NameAlias_LastName="Vantor"),
        eu_row(**_PERSON, Address_Street='"Kade 1; bis"', Address_City="Ghent", Address_CountryIso2Code="BE"),
        eu_row(**_PERSON, BirthDate_BirthDate="1970-03-02", BirthDate_CalendarType="GREGORIAN"),
        eu_row(**_PERSON, BirthDate_Year="1402", BirthDate_CalendarType="ISLAMIC"),
        eu_row(**_PERSON, BirthDate_Year="1969", BirthDate_Circa="true", BirthDate_CalendarType="GREGORIAN"),
        eu_row(
            **_PERSON,
            Identification_Number="EX12345",
            Identification_TypeCode="passport",
            Identification_CountryIso2Code="BE",
        ),
        eu_row(**_PERSON, Citizenship_CountryIso2Code="BE", Citizenship_CountryDescription="BELGIUM"),
        "",
    ]
)

OPENSANCTIONS = (
    '"id","schema","name","aliases","birth_date","countries","addresses","identifiers","sanctions","phones","emails",'
    '"program_ids","dataset","first_seen","last_seen","last_change"\n'
    '"NK-1","Company","Quartz Ferry Lines","QFL;Кварц","","ru;ua-cri;suhh","Kade 1;Kade 2",'
    '"529900T8BM49AURSDO55;7700000000;IMO9999917","2026-07-24;Article 3","","","EU-RUS;US-RUS","Test",'
    '"2026-07-30T08:48:01","2026-09-15T13:11:55","2026-09-15T09:48:57"\n'
    '"NK-2","Person","Ada Okoronkwo","","1960-01;1961-02-03","ng","","","","+234 1","a@b.example","","Test","2024",'
    '"2026-09-14T13:11:55","2025-01-01"\n'
    '"NK-3","CryptoWallet","bc1qquartz","","","","","","","","","","Test","","",""\n'
)

FTM = "\n".join(
    json.dumps(line, ensure_ascii=False)
    for line in (
        {
            "id": "Q1",
            "schema": "Company",
            "caption": "Quartz",
            "properties": {
                "name": ["Quartz Ferry Lines"],
                "alias": ["QFL", "Кварц"],
                "previousName": ["Quartz Shipping"],
                "weakAlias": ["The Stone"],
                "jurisdiction": ["ru"],
                "country": ["cy", "suhh"],
                "registrationNumber": ["HE 1"],
                "innCode": ["7700000000"],
                "ogrnCode": ["1027700000000"],
                "vatCode": ["DE136695976"],
                "leiCode": ["529900T8BM49AURSDO55"],
                "swiftBic": ["QUARRUMM"],
                "idNumber": ["77"],
                "address": ["Kade 1, Ghent"],
                "addressEntity": ["addr-1", {"id": "addr-2", "properties": {"full": ["Kade 2"], "country": ["be"]}}],
                "topics": ["sanction.linked", "corp.offshore"],
                "programId": ["EU-RUS"],
            },
            "target": True,
            "last_seen": "2026-09-15T13:11:55",
        },
        {
            "id": "Q2",
            "schema": "Person",
            "properties": {
                "name": ["Ada Okoronkwo"],
                "birthDate": ["1960-01-02"],
                "nationality": ["ng"],
                "citizenship": ["gb"],
                "idNumber": ["12"],
                "passportNumber": ["EX12345"],
                "topics": ["role.pep", "gov"],
            },
        },
        {"id": "Q3", "schema": "Person", "properties": {"name": ["Bo Okoronkwo"], "topics": ["role.rca"]}},
        {"id": "Q4", "schema": "Person", "properties": {"name": ["Cy Okoronkwo"], "topics": ["sanction.counter"]}},
        {"id": "A1", "schema": "Address", "properties": {"full": ["Kade 1"]}},
        {"id": "Q5", "schema": "Company", "properties": {"name": ["Bystander Ltd"]}, "target": False},
        {"id": "Q6", "schema": "Company", "properties": {"name": ["***"]}},
    )
)

LISTS = {
    "ofac-csv": {"sdn.csv": SDN, "alt.csv": ALT, "add.csv": ADD},
    "un-xml": {"un.xml": UN},
    "eu-xml": {"eu.xml": EU_XML},
    "eu-csv": {"eu.csv": EU_CSV},
    "opensanctions-csv": {"targets.simple.csv": OPENSANCTIONS},
    "ftm-json": {"list.jsonl": FTM},
}
"""The files of one list of each format, the chief one first."""


def put(folder: Path, files: dict[str, str | bytes]) -> list[Path]:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [folder / name for name in files]
